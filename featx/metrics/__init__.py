"""What predictions are worth: reports for every task, intervals, and paired tests."""
