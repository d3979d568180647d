"""What tests of several rooms make their inputs with."""
