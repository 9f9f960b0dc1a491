"""LoRa: airtime and the rules of the air, pure; and the modems that carry frames over it."""
