"""Long runs that look for what tests are too short to find: `python3 tools/run.py soak`."""
