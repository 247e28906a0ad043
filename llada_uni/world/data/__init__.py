"""Records and images of the small world."""
