//! `Debug` for messages that carry secrets: it names the type and shows nothing.

macro_rules! opaque {
    ($($t:path),+ $(,)?) => {$(
        impl std::fmt::Debug for $t {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($t), " { .. }"))
            }
        }
    )+};
}

use crate::{datamodel, supervisor, v1};

opaque!(
    datamodel::Provider,
    supervisor::Credential,
    v1::ConfigureProviderRefreshRequest,
    v1::CreateSshSessionResponse,
    v1::ExchangeProviderSubjectTokenRequest,
    v1::ExchangeProviderSubjectTokenResponse,
    v1::ExtensionServiceCredential,
    v1::GetSandboxProviderEnvironmentResponse,
    v1::IssueSandboxTokenResponse,
    v1::ProviderCredentialValue,
    v1::ProviderEnvironmentValue,
    v1::RefreshSandboxTokenResponse,
    v1::RevokeSshSessionRequest,
    v1::SshSession,
    v1::TcpForwardInit,
);
