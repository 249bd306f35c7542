"""gnomon's tests; a package so that a test can say `from tests.recorded.load import load`."""
