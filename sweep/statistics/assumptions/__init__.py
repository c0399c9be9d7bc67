"""What cheap search rests on, measured: shares near the best, ranks by budget and scale, choices, rules across
scales."""
