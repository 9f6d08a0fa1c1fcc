"""The interactive side of SAME: figures, dashboard and the notebook chain."""
