//! Claims and keys, one wrong at a time.

use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_800_000_000;

fn claims() -> Value {
    json!({
        "iss": "https://id.example", "sub": "1", "aud": "agnes", "exp": NOW + 3600, "iat": NOW, "nonce": "n",
        "email": "ann@acme.example", "email_verified": true, "name": "Ann",
    })
}

/// What is wrong with these claims, with `change` merged in; null takes one away.
fn wrong(change: &Value) -> Option<String> {
    let mut all = claims();
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().shift_remove(name)),
            value => all[name] = value.clone(),
        }
    }
    let expected = Expected { issuer: "https://id.example", client: "agnes", nonce: "n", now: NOW };
    let read: Result<Claims, _> = serde_json::from_value(all);
    match read {
        Err(_) => Some("unreadable".to_owned()),
        Ok(read) => read.hold(&expected).err().map(|error| error.to_string()),
    }
}

#[test]
fn every_claim_has_to_hold() {
    for good in [
        json!({}),
        json!({"aud": ["agnes"]}),
        json!({"azp": "agnes"}),
        json!({"exp": NOW - 59}),
        json!({"iat": NOW + 60}),
        json!({"iat": NOW - 600}),
        json!({"iat": NOW as f64 + 0.5, "nbf": NOW}),
    ] {
        assert_eq!(wrong(&good), None, "{good}");
    }
    for (bad, what) in [
        (json!({"iss": "https://id.example/"}), "`iss`"),
        (json!({"iss": "https://ID.example"}), "`iss`"),
        (json!({"iss": null}), "unreadable"),
        (json!({"aud": "other"}), "`aud`"),
        (json!({"aud": ["agnes", "other"]}), "`aud`"),
        (json!({"aud": []}), "`aud`"),
        (json!({"aud": null}), "unreadable"),
        (json!({"aud": "Agnes"}), "`aud`"),
        (json!({"azp": "other"}), "`azp`"),
        (json!({"exp": NOW - 60}), "expired"),
        (json!({"exp": 0}), "expired"),
        (json!({"exp": null}), "unreadable"),
        (json!({"exp": "tomorrow"}), "unreadable"),
        (json!({"iat": NOW + 61}), "`iat`"),
        (json!({"iat": NOW - 661}), "`iat`"),
        (json!({"iat": null}), "unreadable"),
        (json!({"nbf": NOW + 61}), "not valid yet"),
        (json!({"nonce": "other"}), "`nonce`"),
        (json!({"nonce": ""}), "`nonce`"),
        (json!({"nonce": null}), "`nonce`"),
        (json!({"sub": ""}), "`sub`"),
        (json!({"sub": "x".repeat(256)}), "`sub`"),
        (json!({"sub": null}), "unreadable"),
    ] {
        assert!(
            wrong(&bad).is_some_and(|said| said.contains(what)),
            "{bad} is not refused for {what}: {:?}",
            wrong(&bad)
        );
    }
}

#[test]
fn only_a_true_truth_verifies_an_address() {
    let verified =
        |value: Value| serde_json::from_value::<Person>(json!({"email_verified": value})).unwrap().is_verified();
    assert!(verified(json!(true)) && verified(json!("true")));
    for no in [json!(false), json!("false"), json!(1), json!(null), json!("True "), json!([true]), json!({})] {
        assert!(!verified(no.clone()), "{no}");
    }
    assert!(!serde_json::from_value::<Person>(json!({})).unwrap().is_verified());
}

#[test]
fn a_key_is_used_for_what_it_is_for() {
    let rsa = |kid: &str, more: Value| {
        let mut key = json!({"kty": "RSA", "kid": kid, "n": "AQAB".repeat(86), "e": "AQAB"});
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value::<Jwk>(key).unwrap()
    };
    let token = |head: Value| {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(head.to_string());
        format!("{encoded}.e30.c2ln")
    };
    let keys = [rsa("a", json!({})), rsa("b", json!({"alg": "RS256"}))];
    let found =
        |head: Value, keys: &[Jwk]| Key::of(&token(head), keys).map(|key| key.is_some()).map_err(|e| e.to_string());
    assert_eq!(found(json!({"alg": "RS256", "kid": "a"}), &keys), Ok(true));
    assert_eq!(found(json!({"alg": "PS256", "kid": "b"}), &keys), Ok(false), "the key says which algorithm it is for");
    assert_eq!(found(json!({"alg": "RS256", "kid": "c"}), &keys), Ok(false));
    assert_eq!(found(json!({"alg": "ES256", "kid": "a"}), &keys), Ok(false));
    assert_eq!(found(json!({"alg": "RS256"}), &keys), Ok(false), "two fit, and none is named");
    assert_eq!(found(json!({"alg": "RS256"}), &keys[..1]), Ok(true));
    for alg in ["none", "None", "HS256", "HS384", "HS512", "ES512", "", "RS1"] {
        assert!(found(json!({"alg": alg, "kid": "a"}), &keys).is_err(), "{alg}");
    }
    let shared: Jwk = serde_json::from_value(json!({"kty": "oct", "kid": "a", "k": "AQAB"})).unwrap();
    assert_eq!(found(json!({"alg": "RS256", "kid": "a"}), &[shared]), Ok(false));
    for odd in ["", "a.b.c", ".", "..", &"x".repeat(100_000)] {
        assert!(Key::of(odd, &keys).is_err());
    }
}
