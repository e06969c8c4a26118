//! Enums whose values are texts in the API.

/// Makes enums of texts: serde and schema by the text, and `as_str`.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash,
            ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema,
        )]
        pub enum $name {
            $(
                #[allow(missing_docs, reason = "the description of the field that has it explains it")]
                #[serde(rename = $text)]
                $variant,
            )+
        }

        impl $name {
            /// As the API writes it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    )+};
}

pub(super) use texts;
