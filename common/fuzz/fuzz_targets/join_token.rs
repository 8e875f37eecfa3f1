//! Join tokens as pasted by people: no text panics, and an accepted one reads back as itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use novacron_common::wire::JoinToken;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let candidates = [text.to_owned(), format!("nvj1.{text}")];
    for token in candidates.iter().filter_map(|text| text.parse::<JoinToken>().ok()) {
        let printed = token.to_string();
        assert!(printed.parse::<JoinToken>().is_ok_and(|again| again == token), "does not read back");
        assert!(!format!("{token:?}").contains(&printed), "Debug shows the secret");
    }
});
