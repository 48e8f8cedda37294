//! The table's lines for listeners, filter chains, TCP and TLS.

use super::Decision::{Counted, Ignored, Refused};
use super::Row;

pub(super) const ROWS: &[Row] = &[
    (
        Counted,
        "Listener",
        &[
            "freebind",
            "transparent",
            "tcp_fast_open_queue_length",
            "socket_options",
            "enable_mptcp",
        ],
        "the socket is an ordinary one",
    ),
    (
        Refused,
        "Listener",
        &["udp_listener_config"],
        "UDP isn't proxied",
    ),
    (
        Counted,
        "CommonTlsContext",
        &["key_log"],
        "keys of connections are never written down",
    ),
    (
        Refused,
        "CommonTlsContext",
        &[
            "custom_tls_certificate_selector",
            "custom_handshaker",
            "tls_certificate_provider_instance",
            "tls_certificate_certificate_provider",
            "tls_certificate_certificate_provider_instance",
        ],
        "certificates come from the configuration, by SDS or from the mesh's certificate authority",
    ),
    (
        Refused,
        "CombinedCertificateValidationContext",
        &[
            "validation_context_certificate_provider",
            "validation_context_certificate_provider_instance",
        ],
        "roots come from the configuration, by SDS or from the mesh's certificate authority",
    ),
    (
        Counted,
        "TlsParameters",
        &["cipher_suites", "ecdh_curves", "signature_algorithms"],
        "only suites with forward secrecy and authenticated encryption are offered at all",
    ),
    (
        Refused,
        "TlsParameters",
        &["compliance_policies"],
        "the TLS library isn't certified for them",
    ),
    (
        Refused,
        "CertificateValidationContext",
        &[
            "ca_certificate_provider_instance",
            "verify_certificate_spki",
            "verify_certificate_hash",
            "require_signed_certificate_timestamp",
            "crl",
            "only_verify_leaf_cert_crl",
            "custom_validator_config",
            "max_verify_depth",
        ],
        "without it certificates would be accepted that must not be",
    ),
    (
        Counted,
        "CertificateValidationContext",
        &["allow_expired_certificate", "trust_chain_verification"],
        "certificates are always verified in full",
    ),
    (
        Ignored,
        "CertificateValidationContext",
        &["suppress_client_ca_list", "watched_directory"],
        "nothing of what is accepted depends on it",
    ),
    (
        Refused,
        "DownstreamTlsContext",
        &["require_sni"],
        "connections without a name would be let in",
    ),
    (
        Counted,
        "DownstreamTlsContext",
        &["session_ticket_keys_type"],
        "ticket keys are made here and kept nowhere",
    ),
    (
        Ignored,
        "DownstreamTlsContext",
        &[
            "disable_stateful_session_resumption",
            "session_timeout",
            "full_scan_certs_on_sni_mismatch",
            "prefer_client_ciphers",
        ],
        "resumption and preference change no outcome",
    ),
    (
        Refused,
        "DownstreamTlsContext",
        &["ocsp_staple_policy"],
        "OCSP responses aren't stapled",
    ),
    (
        Ignored,
        "UpstreamTlsContext",
        &[
            "max_session_keys",
            "enforce_rsa_key_usage",
            "allow_renegotiation",
        ],
        "the TLS library neither renegotiates nor accepts keys for other uses",
    ),
    (
        Refused,
        "TlsCertificate",
        &["pkcs12", "private_key_provider", "password"],
        "a certificate and its key are given as PEM without a password",
    ),
    (
        Ignored,
        "TlsCertificate",
        &[
            "watched_directory",
            "ocsp_staple",
            "signed_certificate_timestamp",
        ],
        "it adds nothing that peers of a mesh ask for",
    ),
    (
        Counted,
        "TlsCertificate",
        &["tls_params"],
        "the parameters of the context apply",
    ),
];
