"""Values recorded from Keras; README.md says which."""
