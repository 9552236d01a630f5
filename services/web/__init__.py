"""What every HTTP host of the house shares: one error shape, limits on who may ask and how much, timings."""
