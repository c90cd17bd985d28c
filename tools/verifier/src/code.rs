//! Codes: one stable name for everything that can be wrong with evidence. Programs depend on them; `docs/verification.md` explains each.
//! The letters are the rows of the catalogue of attacks that the tests go through (`tests/catalogue`).

use core::fmt;

/// What a finding is about. Evidence is judged in this order, and the first class with a finding decides the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// There is nothing to judge.
    NoEvidence,
    /// It is not shown that a genuine, unrevoked platform signed the quote.
    Platform,
    /// The quote does not belong to what was shown with it.
    Binding,
    /// All of it is genuine, and not what the user accepts.
    Policy,
}

macro_rules! codes {
    ($($(#[$meaning:meta])* $code:ident = $name:literal, $class:ident;)*) => {
        /// What is wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$meaning])* $code,)* }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$code,)*];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }

            /// What kind of thing is wrong.
            pub const fn class(self) -> Class {
                match self { $(Self::$code => Class::$class,)* }
            }
        }
    };
}

codes! {
    /// The certificate carries no evidence at all (P17).
    EvidenceMissing = "evidence-missing", NoEvidence;
    /// The server gives no fresh evidence when it is asked for some (P17).
    AnswerMissing = "answer-missing", NoEvidence;

    // The quote's structure.
    /// Longer than any quote (C9).
    QuoteTooLarge = "quote-too-large", Platform;
    /// Lengths and fields that do not fit together (C8).
    QuoteMalformed = "quote-malformed", Platform;
    /// Something other than zeros follows the quote (C9).
    QuoteTrailingBytes = "quote-trailing-bytes", Platform;
    /// The quote is of another kind of environment than TDX (C5, C6).
    NotTdx = "not-tdx", Platform;
    /// A version other than 4 and 5 (C5).
    QuoteVersion = "quote-version", Platform;
    /// Signed with another kind of key than ECDSA P-256 (C5).
    QuoteKeyType = "quote-key-type", Platform;
    /// The quoting enclave is not Intel's (C5).
    QuoteVendor = "quote-vendor", Platform;
    /// The report in the quote is of another type or size than its kind has (C7).
    QuoteBody = "quote-body", Platform;
    /// The quote is certified by something else than a chain of certificates (C10).
    CertificationData = "certification-data", Platform;

    // The collateral's structure.
    /// There is no collateral.
    CollateralMissing = "collateral-missing", Platform;
    /// More than collateral ever has (C25).
    CollateralTooLarge = "collateral-too-large", Platform;
    /// Not collateral in the JSON form expected, or documents in it that cannot be read (C25).
    CollateralMalformed = "collateral-malformed", Platform;
    /// A revocation list is missing, cannot be read, or is not signed by the authority it is of (C14).
    CrlInvalid = "crl-invalid", Platform;

    // The chain.
    /// A chain of certificates is not one (C11), or something in it is not as it must be (C8, C24).
    ChainInvalid = "chain-invalid", Platform;
    /// Chain or revocation list do not lead to the trust anchor (C12, C14, C28).
    UntrustedRoot = "untrusted-root", Platform;
    /// A certificate of the chain is expired or not yet valid (C19).
    ChainCertificateExpired = "chain-certificate-expired", Platform;
    /// A certificate of the chain is revoked (C13).
    CertificateRevoked = "certificate-revoked", Platform;
    /// No list says whether a certificate is revoked (C14).
    RevocationUnknown = "revocation-unknown", Platform;
    /// A revocation list is out of date (C14).
    CrlExpired = "crl-expired", Platform;
    /// TCB information is not signed by Intel (C15).
    TcbInfoSignature = "tcb-info-signature", Platform;
    /// The identity of the quoting enclave is not signed by Intel (C15).
    QeIdentitySignature = "qe-identity-signature", Platform;
    /// Collateral is out of date (C18).
    CollateralExpired = "collateral-expired", Platform;
    /// Collateral was issued after the time of judgement (C18).
    CollateralNotYetValid = "collateral-not-yet-valid", Platform;
    /// Collateral is for another kind of environment (C16).
    CollateralKind = "collateral-kind", Platform;
    /// Collateral is for another family of processors (C16).
    FmspcMismatch = "fmspc-mismatch", Platform;
    /// Collateral is for another provisioning enclave (C17).
    PceMismatch = "pce-mismatch", Platform;
    /// The quoting enclave's report is not signed by the platform's key (C2, C23).
    QeReportSignature = "qe-report-signature", Platform;
    /// The quoting enclave does not vouch for the key that signed the quote (C2).
    AttestationKey = "attestation-key", Platform;
    /// The quoting enclave is not the one Intel describes.
    QeMismatch = "qe-mismatch", Platform;
    /// The TDX module is not the one Intel describes (P8).
    ModuleMismatch = "module-mismatch", Platform;
    /// The quote is not signed by the attestation key (C1, C3).
    QuoteSignature = "quote-signature", Platform;
    /// Intel lists no TCB level for such a platform (C22).
    TcbLevelUnmatched = "tcb-level-unmatched", Platform;
    /// The clock is behind one that was seen before (C20).
    ClockRolledBack = "clock-rolled-back", Platform;

    // The certificate and what it carries.
    /// Longer than a certificate of ours (C27).
    CertificateTooLarge = "certificate-too-large", Binding;
    /// The handshake is not signed with the certificate's key: it is somebody else's certificate (M7).
    HandshakeSignature = "handshake-signature", Binding;
    /// Not an X.509 certificate (M6, C24).
    CertificateMalformed = "certificate-malformed", Binding;
    /// The certificate is not signed with its own key.
    CertificateSignature = "certificate-signature", Binding;
    /// More than one piece of evidence (M6).
    EvidenceDuplicate = "evidence-duplicate", Binding;
    /// The extension is critical (M6).
    EvidenceCritical = "evidence-critical", Binding;
    /// Evidence in the form of another system (M6).
    EvidenceForeign = "evidence-foreign", Binding;
    /// The extension does not hold a quote and claims (M6, C26).
    EvidenceMalformed = "evidence-malformed", Binding;
    /// The claims cannot be read (M3, M5, C26).
    ClaimsMalformed = "claims-malformed", Binding;
    /// The quote is for other claims (M1, M2, M3).
    ClaimsUnbound = "claims-unbound", Binding;
    /// The claims' hash is right and not alone in REPORTDATA (M4).
    ReportDataTail = "report-data-tail", Binding;
    /// The claims are about another key than the certificate's (M1).
    KeyMismatch = "key-mismatch", Binding;
    /// The claimed measurement is not that of the quote's registers.
    PlatformMismatch = "platform-mismatch", Binding;
    /// The claimed configuration does not lead to RTMR\[2\].
    ConfigurationUnbound = "configuration-unbound", Binding;
    /// The claimed model does not lead to RTMR\[3\] (M2).
    ModelUnbound = "model-unbound", Binding;
    /// The claimed fingerprint is not the one that follows from the rest (M2).
    FingerprintMismatch = "fingerprint-mismatch", Binding;
    /// The certificate's dates are not the claimed ones (M15).
    ValidityMismatch = "validity-mismatch", Binding;
    /// The certificate is not valid now: it is old, or one of the two clocks is wrong (M15).
    ServerClockSkew = "server-clock-skew", Binding;

    // Fresh evidence.
    /// The answer to a challenge cannot be read.
    AnswerMalformed = "answer-malformed", Binding;
    /// The answer is for another challenge, connection or certificate (M8, M9, M10).
    NotFresh = "not-fresh", Binding;
    /// The answer speaks for the client's own end (M12).
    Reflected = "reflected", Binding;
    /// The quote was made for another purpose (M13).
    WrongPurpose = "wrong-purpose", Binding;
    /// The quote is of another trust domain, or of this one in another state, than the certificate's.
    AnotherDomain = "another-domain", Binding;

    // Policy: the platform.
    /// Intel revoked the platform's TCB level (P14).
    TcbRevoked = "tcb-revoked", Policy;
    /// The TCB status is not an accepted one (P5).
    TcbStatus = "tcb-status", Policy;
    /// The TCB level is older than accepted (P7).
    TcbDate = "tcb-date", Policy;
    /// A security version is below the minimum (P7).
    SvnBelowMinimum = "svn-below-minimum", Policy;
    /// An advisory applies that is refused (P6).
    AdvisoryRefused = "advisory-refused", Policy;
    /// Collateral of an older evaluation than accepted (C21).
    EvaluationTooOld = "evaluation-too-old", Policy;
    /// Collateral issued earlier than accepted (C21).
    IssueDateTooOld = "issue-date-too-old", Policy;
    /// The TDX module is signed by another than Intel, and Intel knows it (P8).
    ModuleSigner = "module-signer", Policy;
    /// The TDX module is not a production one, and Intel knows it (P8).
    ModuleAttributes = "module-attributes", Policy;
    /// The TDX module is not among the accepted ones (P8).
    ModuleNotAllowed = "module-not-allowed", Policy;
    /// A property of the platform is refused (P15).
    PlatformFlag = "platform-flag", Policy;
    /// The platform is not among the accepted ones (C29).
    PlatformNotAllowed = "platform-not-allowed", Policy;

    // Policy: the trust domain.
    /// The host can read the domain's memory (P1).
    Debug = "debug", Policy;
    /// The domain is being profiled (P2).
    Profiled = "profiled", Policy;
    /// Attributes that mean nothing yet (P2).
    ReservedAttributes = "reserved-attributes", Policy;
    /// Extended state that means nothing yet (P2).
    ReservedXfam = "reserved-xfam", Policy;
    /// The host can inject faults for missing pages (P3).
    SeptVe = "sept-ve", Policy;
    /// The host can move the domain elsewhere (P4).
    Migratable = "migratable", Policy;
    /// Other domains have a say in this one (P4).
    ServiceTd = "service-td", Policy;

    // Policy: program, configuration and model.
    /// No manifest says what program is accepted.
    ManifestMissing = "manifest-missing", Policy;
    /// A manifest cannot be read (P12).
    ManifestInvalid = "manifest-invalid", Policy;
    /// A manifest is not signed by the key given (P12).
    ManifestSignature = "manifest-signature", Policy;
    /// A manifest has expired (P12).
    ManifestExpired = "manifest-expired", Policy;
    /// A manifest is older than one of the same key that was accepted before (P11).
    ManifestRollback = "manifest-rollback", Policy;
    /// Another program (P9).
    ProgramMismatch = "program-mismatch", Policy;
    /// RTMR\[0\], RTMR\[1\] or an owner's field is not what the program leaves there (P9).
    UnexpectedRegister = "unexpected-register", Policy;
    /// Attributes or extended state that the manifest does not allow.
    AttributesMismatch = "attributes-mismatch", Policy;
    /// No accepted configuration was named.
    ConfigNotPinned = "config-not-pinned", Policy;
    /// Another configuration (P9).
    ConfigMismatch = "config-mismatch", Policy;
    /// No accepted model was named.
    ModelNotPinned = "model-not-pinned", Policy;
    /// Another model, or none yet (P10, M11).
    ModelMismatch = "model-mismatch", Policy;
    /// An older release of the model than accepted (P11).
    ModelRollback = "model-rollback", Policy;
    /// The certificate is valid for longer than accepted (M15).
    CertificateLife = "certificate-life", Policy;

    // The owner's endorsement, where one is demanded.
    /// What the server shows of it cannot be read.
    EndorsementMalformed = "endorsement-malformed", Binding;
    /// The endorsed key did not sign this session's: it is another domain's endorsement.
    EndorsementSession = "endorsement-session", Binding;
    /// The owner left none.
    EndorsementMissing = "endorsement-missing", Policy;
    /// It is of another domain or model, or by another key than the owner's.
    EndorsementSignature = "endorsement-signature", Policy;
    /// It has expired.
    EndorsementExpired = "endorsement-expired", Policy;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
