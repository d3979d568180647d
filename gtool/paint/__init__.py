"""`gtool paint`: paintings of photographs and videos."""
