"""The three databases: BDC (configuration), BDTR (real time) and BDH (history). No Ray here."""
