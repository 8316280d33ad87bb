"""What each method does at a site, one file a method."""
