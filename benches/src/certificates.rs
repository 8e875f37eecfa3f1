//! What the throw-away certificates of a peer have in common.

use anyhow::Result;
use rcgen::{CertificateParams, DnType, date_time_ymd};

/// rcgen's own default reaches into the year 4096, which not every TLS library reads.
pub fn valid(name: &str, names: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    Ok(params)
}
