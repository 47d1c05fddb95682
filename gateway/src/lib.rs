//! tictac-gateway
