//! Where a request comes from. Anybody can write `X-Forwarded-For`, so it is believed only as far as our own proxies wrote it.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address: the connection's other end without proxies, otherwise the entry that the outermost of so many `hops`
/// wrote. A request that has not come through all of them counts as its connection's.
pub fn client_address(headers: &HeaderMap, peer: IpAddr, hops: usize) -> IpAddr {
    let entries = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let entries: Vec<&str> = entries.map(str::trim).collect();
    let outermost = entries.len().checked_sub(hops).and_then(|position| entries.get(position));
    let forwarded = outermost.and_then(|entry| entry.parse().ok());
    forwarded.unwrap_or(peer).to_canonical()
}

/// What limits count as one client: an address, of IPv6 the /64 that one customer of a provider has.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "10.0.0.9";

    fn address(forwarded: &[&str], hops: usize) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        client_address(&headers, PEER.parse().unwrap(), hops).to_string()
    }

    #[test]
    fn what_a_client_wrote_itself_is_not_believed() {
        assert_eq!(address(&["1.1.1.1"], 0), PEER);
        assert_eq!(address(&["1.1.1.1, 203.0.113.7"], 1), "203.0.113.7");
        assert_eq!(address(&["1.1.1.1, 203.0.113.7, 10.0.0.8"], 2), "203.0.113.7");
        assert_eq!(address(&["1.1.1.1", "203.0.113.7"], 1), "203.0.113.7", "several headers are one list");
    }

    #[test]
    fn a_request_that_went_around_a_proxy_counts_as_its_connection() {
        assert_eq!(address(&[], 1), PEER);
        assert_eq!(address(&["203.0.113.7"], 2), PEER);
        assert_eq!(address(&["nonsense"], 1), PEER);
    }

    #[test]
    fn a_network_is_one_client() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("203.0.113.7"), "203.0.113.7");
        assert_eq!(address(&["::ffff:203.0.113.7"], 1), "203.0.113.7", "IPv4 in IPv6 is IPv4");
    }
}
