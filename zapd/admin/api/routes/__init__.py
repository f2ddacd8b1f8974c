"""One file for each path of ``/v1``. Routes translate; they decide nothing."""
