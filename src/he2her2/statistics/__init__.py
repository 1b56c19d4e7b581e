"""Metrics, intervals, tests, calibration, operating points and triage: functions of arrays."""
