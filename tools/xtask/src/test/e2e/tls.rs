//! TLS as OpenSSL sees it.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use attestation::certificate::EXTENSION_ID;

use super::Context;
use crate::failure::{Context as _, Result, ensure};
use crate::process::{self, Output};

/// For one handshake.
const LIMIT: Duration = Duration::from_secs(60);

/// `openssl s_client` on the guest's TCP port; ends when its input does.
fn s_client(context: &Context, options: &[&str]) -> Result<Output> {
    let mut command = Command::new("openssl");
    command
        .args([
            "s_client",
            "-connect",
            &format!("127.0.0.1:{}", context.guest.port()),
        ])
        .args(options);
    process::output(&mut command, b"", LIMIT)
}

pub fn openssl_speaks_tls13(context: &mut Context) -> Result<()> {
    let output = s_client(context, &["-brief"])?;
    let said = format!("{}{}", output.stdout, output.stderr);
    ensure!(
        output.status.success() && said.contains("TLSv1.3"),
        "no TLS 1.3 with openssl: {said}"
    );
    Ok(())
}

pub fn tls12_is_refused(context: &mut Context) -> Result<()> {
    let output = s_client(context, &["-tls1_2"])?;
    ensure!(
        !output.status.success() && output.stderr.contains("protocol version"),
        "TLS 1.2 should be refused with the alert protocol_version: {}",
        output.stderr
    );
    Ok(())
}

pub fn the_certificate_is_self_signed_p256(context: &mut Context) -> Result<()> {
    self_signed_p256(context).map(drop)
}

/// The same, with quote and claims in an extension that is not critical.
pub fn the_certificate_carries_evidence(context: &mut Context) -> Result<()> {
    let text = self_signed_p256(context)?;
    let mut lines = text.lines().map(str::trim);
    let extension = lines.find(|line| line.starts_with(EXTENSION_ID));
    // "critical" would stand behind the colon; the value begins on the next line, here as the bytes of a CBOR tag.
    ensure!(
        extension == Some(&format!("{EXTENSION_ID}:")) && lines.next().is_some(),
        "no extension {EXTENSION_ID} that is not critical:\n{text}"
    );
    Ok(())
}

/// Fails unless the certificate is what it should be without a look at the evidence; gives it as OpenSSL prints it.
fn self_signed_p256(context: &Context) -> Result<String> {
    let shown = s_client(context, &["-showcerts"])?.stdout;
    let mut x509 = Command::new("openssl");
    x509.args(["x509", "-noout", "-text", "-issuer", "-subject"]);
    let text = process::output(&mut x509, shown.as_bytes(), LIMIT)?.stdout;
    let name = |field: &str| {
        let mut lines = text.lines();
        lines
            .find_map(|line| line.strip_prefix(field))
            .map(str::to_owned)
    };
    ensure!(
        text.contains("prime256v1"),
        "the key is not on P-256:\n{text}"
    );
    ensure!(
        name("issuer=").is_some() && name("issuer=") == name("subject="),
        "the certificate is not self-signed:\n{text}"
    );
    let pem = shown
        .split_inclusive("-----END CERTIFICATE-----")
        .next()
        .unwrap_or_default();
    let start = pem.find("-----BEGIN CERTIFICATE-----").unwrap_or(0);
    let file = tempfile::NamedTempFile::new().context("create a file")?;
    file.as_file()
        .write_all(&pem.as_bytes()[start..])
        .context("write a file")?;
    let mut verify = Command::new("openssl");
    verify
        .args(["verify", "-check_ss_sig", "-CAfile"])
        .arg(file.path())
        .arg(file.path());
    process::text(&mut verify, LIMIT)?;
    Ok(text)
}

/// A connection that does not speak TLS is closed, or ignored until its time is up; others are served meanwhile.
pub fn bytes_that_are_not_tls_disturb_nobody(context: &mut Context) -> Result<()> {
    let mut silent = Vec::new();
    for bytes in [
        &b""[..],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0xff; 4096],
        &[0x16, 3, 1],
    ] {
        let mut stream =
            TcpStream::connect(("127.0.0.1", context.guest.port())).context("connect")?;
        // The guest may have closed it already, which is right.
        let _ = stream.write_all(bytes);
        silent.push(stream);
    }
    context.guest.client()?.health()?;
    drop(silent);
    context.guest.client()?.health()?;
    Ok(())
}
