//! Where documents are.

use tictac_proto::model::{MarketId, View};

use crate::request::encoded;

/// The path of a market's document, as a view has it.
#[must_use]
pub fn path(market: &MarketId, view: View) -> String {
    let name = view.depth().map_or_else(|| "all".to_owned(), |depth| depth.to_string());
    format!("/v1/markets/{}?view={name}", encoded(market))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_path_can_t_hold_is_encoded() {
        assert_eq!(path(&"1.23".into(), View::All), "/v1/markets/1.23?view=all");
        assert_eq!(path(&"a/b?c d%é".into(), View::Three), "/v1/markets/a%2Fb%3Fc%20d%25%C3%A9?view=3");
    }
}
