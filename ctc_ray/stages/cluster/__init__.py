"""Ray, as the stages use it: connecting, running units, messages of workers."""
