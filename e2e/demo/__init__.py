"""The main job on a real cluster; `python -m e2e.demo`."""
