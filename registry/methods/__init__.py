"""What each method means on disk, torch-free: config fields, tensor names, plan."""
