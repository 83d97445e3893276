"""What every wing stands on: the door to the disk, locks, checks of options."""
