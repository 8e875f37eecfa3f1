//! The codec from outside: what comes back is what went in, as few bytes, whatever arrives in whatever pieces.

mod hostile;
mod kinds;
mod lane;
mod offer;
mod restart;
mod round_trip;
mod streams;
