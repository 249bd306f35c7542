"""Tests of compiling ahead of time."""
