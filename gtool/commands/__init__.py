"""One plain function a verb: glue between data, engines, metrics and files; no mathematics."""
