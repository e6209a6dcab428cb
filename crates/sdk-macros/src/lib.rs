//! The attribute `requires` of `qm-sdk`, which re-exports it. Owns syntax alone: what it stands for is `Client::require`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Expr, Ident, ItemFn, LitStr, ReturnType, Token, parse_quote, parse2};

/// Calls an async function only while a service may be used.
///
/// ```ignore
/// #[requires(service = "postgres", operation = "write")]
/// async fn save(order: Order) -> Result<(), MyError> { .. }
/// ```
///
/// - `service`: the mini service, in the client's namespace;
/// - `operation`: what is to be done with it, where an app reports what cannot be done;
/// - `client`: an expression for the client to ask, such as `self.client`; without it, the one that `qm_sdk::install` was given.
///
/// The function gives a `Result` whose error is made `From<qm_sdk::Blocked>`.
#[proc_macro_attribute]
pub fn requires(arguments: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand(arguments.into(), item.into()).unwrap_or_else(Error::into_compile_error).into()
}

struct Arguments {
    service: LitStr,
    operation: Option<LitStr>,
    client: Option<Expr>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (mut service, mut operation, mut client) = (None, None, None);
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            let twice = || Error::new(name.span(), format!("`{name}` is given twice"));
            input.parse::<Token![=]>()?;
            match name.to_string().as_str() {
                "service" if service.is_some() => return Err(twice()),
                "operation" if operation.is_some() => return Err(twice()),
                "client" if client.is_some() => return Err(twice()),
                "service" => service = Some(name_of(input, "service")?),
                "operation" => operation = Some(name_of(input, "operation")?),
                "client" => client = Some(input.parse()?),
                other => return Err(Error::new(name.span(), format!("there is no `{other}` here: `service`, `operation` or `client`"))),
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let service = service.ok_or_else(|| Error::new(Span::call_site(), "say of which service: `service = \"postgres\"`"))?;
        Ok(Self { service, operation, client })
    }
}

/// A text that is not empty.
fn name_of(input: ParseStream<'_>, what: &str) -> syn::Result<LitStr> {
    let bad = |span| Error::new(span, format!("`{what}` is a text, such as \"postgres\""));
    let span = input.span();
    let text: LitStr = input.parse().map_err(|_| bad(span))?;
    if text.value().is_empty() { Err(bad(text.span())) } else { Ok(text) }
}

fn expand(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let Arguments { service, operation, client } = parse2(arguments)?;
    let span = item.span();
    let mut function: ItemFn = parse2(item).map_err(|_| Error::new(span, "`requires` stands before an async function"))?;
    if function.sig.asyncness.is_none() {
        return Err(Error::new(function.sig.fn_token.span(), "`requires` stands before an async function: this one is not async"));
    }
    if matches!(function.sig.output, ReturnType::Default) {
        let message = "this function gives a `Result` whose error can be made from `qm_sdk::Blocked`";
        return Err(Error::new(function.sig.ident.span(), message));
    }
    let operation = match operation {
        Some(operation) => quote!(::core::option::Option::Some(#operation)),
        None => quote!(::core::option::Option::None),
    };
    // What is wrong with the error's type is shown at the type of the result.
    let span = function.sig.output.span();
    let check = match client {
        Some(client) => quote_spanned!(span=> ::qm_sdk::Client::require(&(#client), #service, #operation)?;),
        None => quote_spanned!(span=> ::qm_sdk::require_installed(#service, #operation)?;),
    };
    let body = &function.block;
    let inner = body.stmts.iter();
    function.block = parse_quote!({ #check #(#inner)* });
    Ok(quote!(#function))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(arguments: TokenStream, item: TokenStream) -> String {
        match expand(arguments, item) {
            Ok(tokens) => tokens.to_string(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn a_function_begins_with_the_question() {
        let item = quote!(
            async fn save(&self) -> Result<u8, E> {
                self.insert().await
            }
        );
        let begin = |arguments| {
            let text = text(arguments, item.clone());
            let (head, body) = text.split_once("{ ").expect("a function has a body");
            assert_eq!(head, "async fn save (& self) -> Result < u8 , E > ");
            assert!(body.ends_with("self . insert () . await }"), "{body}");
            body.split(';').next().unwrap_or_default().trim().replace(' ', "")
        };
        let none = "::core::option::Option::None";
        assert_eq!(begin(quote!(service = "db")), format!("::qm_sdk::require_installed(\"db\",{none})?"));
        assert_eq!(
            begin(quote!(service = "db", operation = "write",)),
            "::qm_sdk::require_installed(\"db\",::core::option::Option::Some(\"write\"))?"
        );
        assert_eq!(
            begin(quote!(client = self.client, service = "db")),
            format!("::qm_sdk::Client::require(&(self.client),\"db\",{none})?")
        );
    }

    #[test]
    fn mistakes_are_named() {
        let good = quote!(
            async fn save() -> Result<(), E> {}
        );
        let table = [
            (quote!(), good.clone(), "error: say of which service: `service = \"postgres\"`"),
            (quote!(service = ""), good.clone(), "error: `service` is a text, such as \"postgres\""),
            (quote!(service = db), good.clone(), "error: `service` is a text, such as \"postgres\""),
            (quote!(service = "a", service = "b"), good.clone(), "error: `service` is given twice"),
            (quote!(servce = "a"), good.clone(), "error: there is no `servce` here: `service`, `operation` or `client`"),
            (
                quote!(service = "a"),
                quote!(
                    struct A;
                ),
                "error: `requires` stands before an async function",
            ),
            (
                quote!(service = "a"),
                quote!(
                    fn save() -> Result<(), E> {}
                ),
                "error: `requires` stands before an async function: this one is not async",
            ),
            (
                quote!(service = "a"),
                quote!(
                    async fn save() {}
                ),
                "error: this function gives a `Result` whose error can be made from `qm_sdk::Blocked`",
            ),
        ];
        for (arguments, item, wanted) in table {
            assert_eq!(text(arguments, item), wanted);
        }
    }
}
