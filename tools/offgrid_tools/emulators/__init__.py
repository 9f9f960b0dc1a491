"""Radio modems without radio: what a LoRa channel does to frames, and firmware that answers as the real one does."""
