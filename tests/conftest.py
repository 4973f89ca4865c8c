"""What the suite does not collect: checks that run in environments of their own (``make test-consumers``, ``make
test-matrix``)."""

collect_ignore_glob = ["consumers/*/*", "consumers/run.py", "consumers/shared.py", "matrix/run.py"]
