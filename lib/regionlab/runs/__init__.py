"""Run records, profiles, the strict papermill runner, reports and tables."""
