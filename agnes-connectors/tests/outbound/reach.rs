//! Where a call may not go, before, while and after names are resolved.

use agnes_connectors::outbound::{Outbound, OutboundError, Rules};
use agnes_core::error::Coded as _;

use super::peer::{Peer, Table, answer, client};

/// The code of refusing `url` at once and when it is called.
async fn refused(outbound: &Outbound, url: &str) -> String {
    let checked = outbound.check(url).await;
    let sent = outbound.get(url).send().await.map(drop);
    assert_eq!(checked.as_ref().map_err(OutboundError::code), sent.as_ref().map_err(OutboundError::code), "{url}");
    sent.expect_err(url).code().to_owned()
}

#[tokio::test]
async fn only_public_https_addresses_are_called() {
    let outbound = client(Table::default());
    for url in [
        "http://example.com/",
        "ftp://example.com/",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://:secret@example.com/",
        "https://good.example@10.0.0.1/",
        "https://localhost/",
        "https://LOCALHOST./",
        "https://a.localhost/",
        "https://metadata.google.internal/",
        "https://printer.local/",
        "https://internal/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://0.0.0.0/",
        "https://10.1.2.3/",
        "https://172.20.0.1/",
        "https://192.168.0.1/",
        "https://100.64.1.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://168.63.129.16/",
        "https://198.18.0.1/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://[::]/",
        "https://[::1]/",
        "https://[fe80::1]/",
        "https://[fd00:ec2::254]/",
        "https://[ff02::1]/",
        "https://[2001:db8::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://[64:ff9b::10.0.0.1]/",
        "https://[64:ff9b:1::1]/",
        "https://[2002:7f00:1::]/",
    ] {
        assert_eq!(refused(&outbound, url).await, "private_url", "{url}");
    }
    for url in [
        "",
        "example.com",
        "/path",
        "https://",
        "https://a b/",
        "https://exa\tmple.com/",
        "https:\\\\a/",
        "https://[::1/",
    ] {
        assert_eq!(refused(&outbound, url).await, "url_invalid", "{url:?}");
    }
    assert_eq!(refused(&outbound, "data:text/plain,x").await, "url_invalid");
}

#[tokio::test]
async fn every_address_of_a_name_is_looked_at() {
    let table = Table::default()
        .with("public.example", &[&["8.8.8.8", "2606:4700::1111"]])
        .with("inside.example", &[&["10.0.0.1"]])
        .with("mixed.example", &[&["8.8.8.8", "127.0.0.1"]])
        .with("mixed6.example", &[&["8.8.8.8", "::1"]])
        .with("mapped.example", &[&["::ffff:192.168.1.1"]])
        .with("nat64.example", &[&["64:ff9b::a9fe:a9fe"]])
        .with("nat.example", &[&["100.64.0.1"]])
        .with("none.example", &[&[]]);
    let outbound = client(table);
    for name in ["inside", "mixed", "mixed6", "mapped", "nat64", "nat"] {
        assert_eq!(refused(&outbound, &format!("https://{name}.example/")).await, "private_url", "{name}");
    }
    for name in ["none", "unknown"] {
        assert_eq!(refused(&outbound, &format!("https://{name}.example/")).await, "host_not_found", "{name}");
    }
    outbound.check("https://public.example/").await.unwrap();
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_caught_where_it_counts() {
    let peer = Peer::saying(answer(200, "", "inside"));
    let table = Table::default().with("rebind.example", &[&["8.8.8.8"], &["127.0.0.1"]]);
    let outbound = client(table);
    let url = format!("https://rebind.example:{}/", peer.address.port());
    outbound.check(&url).await.unwrap();
    // What is connected to is what was resolved for the connection, and that is refused.
    let error = outbound.get(&url).send().await.unwrap_err();
    assert_eq!(error.code(), "private_url", "{error}");
    assert_eq!(peer.requests(), [""; 0], "nothing came to a private address");
}

#[tokio::test]
async fn redirects_are_checked_like_first_addresses() {
    let table = Table::default().with("inside.example", &[&["10.0.0.1"]]);
    let outbound = client(table);
    for to in [
        "http://127.0.0.1:1/",
        "https://127.0.0.1/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest",
        "//10.0.0.1/",
        "https://inside.example/",
        "https://localhost/",
        "http://public.example/",
        "https://user@good.example/",
        "file:///etc/passwd",
    ] {
        let peer = Peer::saying(answer(302, &format!("Location: {to}\r\n"), ""));
        let error = outbound.get(&peer.url("good.example", "/")).send().await.unwrap_err();
        // `file:` names no host, which is its own refusal.
        let code = if to.starts_with("file:") { "url_invalid" } else { "private_url" };
        assert_eq!(error.code(), code, "{to}: {error}");
        assert_eq!(peer.requests().len(), 1, "{to}");
    }
}

#[tokio::test]
async fn hosts_the_operator_names_may_be_private_and_no_others() {
    let peer = Peer::saying(answer(200, "", "hello"));
    let outbound = client(Table::default());
    let said = outbound.get(&peer.url("good.example", "/")).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(said, b"hello");
    // Its address is not its name.
    assert_eq!(refused(&outbound, &peer.url("127.0.0.1", "/")).await, "private_url");
    assert_eq!(refused(&outbound, &peer.url("sub.good.example", "/")).await, "private_url");
    let by_address = Outbound::new(Rules::default().allowing(["127.0.0.1", "[::1]"]));
    assert_eq!(by_address.get(&peer.url("127.0.0.1", "/")).send().await.unwrap().status(), 200);
    by_address.check("http://[::1]:80/").await.unwrap();
    assert_eq!(refused(&by_address, "http://127.0.0.2/").await, "private_url");
}

#[tokio::test]
async fn proxies_of_the_environment_see_nothing() {
    let proxy = Peer::saying(answer(200, "", "proxy"));
    // The variables are those of a child, which runs this test once more.
    if std::env::var_os("OUTBOUND_PROXY_TEST").is_none() {
        let by = format!("http://{}", proxy.address);
        let again = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "reach::proxies_of_the_environment_see_nothing"])
            .env("OUTBOUND_PROXY_TEST", "1")
            .envs(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"].map(|name| (name, by.as_str())))
            .output()
            .unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
        assert_eq!(proxy.requests(), [""; 0]);
        return;
    }
    let peer = Peer::saying(answer(200, "", "peer"));
    let outbound = client(Table::default());
    let said = outbound.get(&peer.url("good.example", "/")).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(said, b"peer");
}
