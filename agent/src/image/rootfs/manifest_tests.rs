//! What archives say about themselves.

use super::*;
use novacron_common::spec::{HealthTest, Signal};
use proptest::prelude::*;
use serde_json::{Value, json};

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn named(byte: u8) -> String {
    format!("sha256:{}", Sha256Digest([byte; 32]))
}

fn entry(byte: u8, media_type: &str, platform: Option<(&str, &str)>) -> Value {
    let mut entry = json!({"digest": named(byte), "mediaType": media_type, "size": 7});
    if let Some((os, architecture)) = platform {
        entry["platform"] = json!({"os": os, "architecture": architecture});
    }
    entry
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[test]
fn the_image_for_this_host_is_chosen_and_attestations_are_not() {
    let mut attestation = entry(9, MANIFEST, Some(("unknown", "unknown")));
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let other = entry(2, MANIFEST, Some(("linux", "s390x")));
    let index = json!({"manifests": [other, entry(1, MANIFEST, Some(("linux", ARCHITECTURE))), attestation]});
    assert_eq!(choose(&bytes(&index)).unwrap(), Chosen::Manifest(Sha256Digest([1; 32])));
    let nested = json!({"manifests": [entry(3, "application/vnd.oci.image.index.v1+json", None)]});
    assert_eq!(choose(&bytes(&nested)).unwrap(), Chosen::Index(Sha256Digest([3; 32])));
    let none = json!({"manifests": [entry(2, MANIFEST, Some(("linux", "s390x")))]});
    assert!(matches!(choose(&bytes(&none)), Err(ManifestFault::Platform(_))));
    let two = json!({"manifests": [entry(1, MANIFEST, None), entry(2, MANIFEST, None)]});
    assert!(matches!(choose(&bytes(&two)), Err(ManifestFault::Several(2))));
}

#[test]
fn digests_are_sha256_or_nothing() {
    for bad in
        ["", "sha256:", "sha512:00", "sha256:../../etc/passwd", &named(1)[..70], &format!("{}0", named(1))]
    {
        let text = bytes(&json!({"config": {"digest": bad}, "layers": [{"digest": named(1)}]}));
        assert!(matches!(manifest(&text), Err(ManifestFault::Digest(..))), "{bad:?}");
    }
}

#[test]
fn layers_come_in_order_and_in_bounds() {
    let layers =
        |count: usize| -> Vec<Value> { (0..count).map(|n| json!({"digest": named(n as u8)})).collect() };
    let of = |count| manifest(&bytes(&json!({"config": {"digest": named(200)}, "layers": layers(count)})));
    let read = of(2).unwrap();
    assert_eq!(read.config, Blob::Digest(Sha256Digest([200; 32])));
    assert_eq!(read.layers, [Blob::Digest(Sha256Digest([0; 32])), Blob::Digest(Sha256Digest([1; 32]))]);
    assert!(matches!(of(0), Err(ManifestFault::Layers(0))));
    assert!(matches!(of(128), Err(ManifestFault::Layers(128))));
    let docker = json!([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}]);
    let read = docker_manifest(&bytes(&docker)).unwrap();
    assert_eq!(read.layers, [Blob::Named("a/layer.tar".into()), Blob::Named("b/layer.tar".into())]);
    let two = json!([docker[0], docker[0]]);
    assert!(matches!(docker_manifest(&bytes(&two)), Err(ManifestFault::Several(2))));
    assert!(matches!(docker_manifest(b"[]"), Err(ManifestFault::Platform(_))));
}

fn configured(config: Value) -> Result<ImageConfig, ManifestFault> {
    let rootfs = json!({"type": "layers", "diff_ids": [named(1)]});
    super::config(&bytes(&json!({"architecture": ARCHITECTURE, "config": config, "rootfs": rootfs})), 1)
}

#[test]
fn a_configuration_says_what_is_run() {
    let read = configured(json!({
        "Entrypoint": ["/bin/tini", "--"], "Cmd": ["nginx"], "WorkingDir": "/srv",
        "Env": ["PATH=/bin", "EMPTY=", "A=b=c", "nonsense", "=x"], "User": "app:www",
    }));
    let ImageConfig { diff_ids, run: read } = read.unwrap();
    assert_eq!(diff_ids, [Sha256Digest([1; 32])]);
    assert_eq!(read.program.argv, ["/bin/tini", "--", "nginx"]);
    let env = [("PATH", "/bin"), ("EMPTY", ""), ("A", "b=c")];
    assert_eq!(read.program.env, env.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(read.program.working_dir.as_deref(), Some("/srv"));
    assert_eq!(read.user.as_deref(), Some("app:www"));
    let empty = configured(json!({"Entrypoint": null, "WorkingDir": "", "User": ""})).unwrap();
    assert_eq!(empty.run, ImageRun::default());
    assert_eq!(configured(Value::Null).unwrap().run, ImageRun::default());
}

#[test]
fn a_stop_signal_has_a_name_or_a_number_and_what_no_command_is_sent_is_none() {
    let read = |signal: &str| configured(json!({"StopSignal": signal})).unwrap().run.stop_signal;
    for (text, signal) in [("SIGQUIT", Signal::Quit), ("WINCH", Signal::Winch), ("15", Signal::Term)] {
        assert_eq!(read(text), Some(signal));
    }
    for text in ["SIGRTMIN+3", "37", "", "nonsense"] {
        assert_eq!(read(text), None);
    }
}

#[test]
fn a_health_check_is_a_shells_or_a_programs_or_none() {
    let read = |check: Value| configured(json!({"Healthcheck": check})).unwrap().run.health;
    let whole = json!({"Test": ["CMD-SHELL", "curl -f localhost || exit 1"], "Interval": 5_000_000_000_u64,
        "Timeout": 1_500_000_000, "StartPeriod": 60_000_000_000_u64, "StartInterval": 1, "Retries": 4});
    let wanted = HealthSpec {
        test: Some(HealthTest::Shell("curl -f localhost || exit 1".into())),
        interval_ms: Some(5000),
        timeout_ms: Some(1500),
        retries: Some(4),
        start_period_ms: Some(60_000),
    };
    assert_eq!(read(whole), wanted);
    let test = |words: Value| read(json!({"Test": words, "Interval": 0, "Retries": -1}));
    let only = |test| HealthSpec { test, ..HealthSpec::default() };
    assert_eq!(
        test(json!(["CMD", "/ok", "-v"])),
        only(Some(HealthTest::Exec(vec!["/ok".into(), "-v".into()])))
    );
    assert_eq!(test(json!(["NONE"])), only(Some(HealthTest::Off)));
    for silent in [json!([]), json!(null), json!(["CMD"]), json!(["CMD-SHELL"]), json!(["WHAT", "x"])] {
        assert_eq!(test(silent), only(None));
    }
    let absurd = configured(json!({"Healthcheck": {"Test": ["CMD", "a\0b"]}}));
    assert!(matches!(absurd, Err(ManifestFault::Words("health check"))));
}

#[test]
fn a_configuration_that_cannot_be_is_refused() {
    assert!(matches!(configured(json!({"Cmd": ["a\0b"]})), Err(ManifestFault::Words("command"))));
    let many: Vec<String> = (0..1025).map(|n| format!("A{n}=b")).collect();
    assert!(matches!(configured(json!({"Env": many})), Err(ManifestFault::Words("environment"))));
    let rootfs = json!({"diff_ids": [named(1)]});
    let other = json!({"architecture": "s390x", "rootfs": rootfs});
    assert!(matches!(super::config(&bytes(&other), 1), Err(ManifestFault::Platform(_))));
    let two = super::config(&bytes(&json!({"rootfs": rootfs})), 2);
    assert!(matches!(two, Err(ManifestFault::Disagree { manifest: 2, config: 1 })));
}

proptest! {
    #[test]
    fn no_bytes_panic_the_parsers(text in "[\\[\\]{}\",:a-z0-9]{0,200}") {
        let bytes = text.as_bytes();
        let _ = (choose(bytes), manifest(bytes), docker_manifest(bytes), super::config(bytes, 1));
    }
}
