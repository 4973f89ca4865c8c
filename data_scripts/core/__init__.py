"""What the converters share: unpacking, reading and checking volumes, splitting, writing, and the command line."""
