def full_disks(*a):
    return []


def pairs(*a):
    return []


def without_home(*a):
    return []
