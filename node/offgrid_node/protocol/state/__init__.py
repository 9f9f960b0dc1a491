"""The journal as it is kept safe: cut into segments that other nodes hold, and put together again from them."""
