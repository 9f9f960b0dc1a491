"""Sessions: what applications record, kept sealed; read back, folded and shredded."""
