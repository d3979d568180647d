"""`gtool paint`: from photographs and clips to paintings."""
