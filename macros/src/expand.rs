//! The code that is put beside the function.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Ident, Item, ItemFn, ReturnType, Visibility, parse_quote};

use crate::options::{Kind, Mistakes, Options};
use crate::signature::{self, Parameter};

/// The function as it was, and beside it a definition; or the function and all mistakes.
pub(crate) fn expand(kind: Kind, options: TokenStream, item: TokenStream) -> TokenStream {
    let function = match syn::parse2::<ItemFn>(item.clone()) {
        Ok(function) => function,
        Err(mistake) => {
            // What isn't a function at all gets a message of its own.
            let mistake = match syn::parse2::<Item>(item.clone()) {
                Ok(_) => {
                    let noun = kind.noun();
                    syn::Error::new(Span::call_site(), format!("#[{noun}] goes on a function"))
                }
                Err(_) => mistake,
            };
            let mistake = mistake.into_compile_error();
            return quote!(#item #mistake);
        }
    };
    let mut mistakes = Mistakes::default();
    let options = Options::parse(kind, options, &mut mistakes);
    let parameters = signature::read(kind, &function, &options, &mut mistakes);
    if let Some(mistakes) = mistakes.into_error() {
        let mistakes = mistakes.into_compile_error();
        return quote!(#function #mistakes);
    }
    let expansion = Expansion::new(&function, &options, &parameters);
    let beside = match kind {
        Kind::Task => expansion.task(),
        Kind::Callback => expansion.callback(),
    };
    quote!(#function #beside)
}

/// What both kinds of definitions are written from.
struct Expansion<'a> {
    function: &'a ItemFn,
    options: &'a Options,
    parameters: &'a [Parameter],
    /// The path of what the generated code names.
    private: TokenStream,
    name: String,
    /// The function's `#[cfg]`s, which hold for everything beside it.
    cfgs: Vec<&'a Attribute>,
    /// The visibility that is the function's, seen from inside the module.
    inner: Visibility,
    /// What the function's module imports from outside. Inside a function there is no such item,
    /// and its name is what the compiler says then.
    marker: Ident,
    args: Ident,
    ctx: Ident,
}

impl<'a> Expansion<'a> {
    fn new(function: &'a ItemFn, options: &'a Options, parameters: &'a [Parameter]) -> Self {
        let plain = function.sig.ident.unraw();
        let name = options.name.clone().unwrap_or_else(|| plain.to_string());
        Expansion {
            function,
            options,
            parameters,
            private: quote!(::message_queue_sqlite::__private),
            name,
            cfgs: function.attrs.iter().filter(|attr| attr.path().is_ident("cfg")).collect(),
            inner: inner_visibility(&function.vis),
            marker: format_ident!(
                "__{plain}_must_be_at_module_level_not_inside_a_function",
                span = function.sig.ident.span()
            ),
            args: Ident::new("args", Span::mixed_site()),
            ctx: Ident::new("ctx", Span::mixed_site()),
        }
    }

    fn task(&self) -> TokenStream {
        let Expansion { private, name, cfgs, function, inner, marker, .. } = self;
        let ident = &function.sig.ident;
        let types: Vec<_> = self.arguments().map(|(_, ty, _)| ty).collect();
        let args = tuple(&types);
        let output = match &function.sig.output {
            ReturnType::Default => quote!(()),
            ReturnType::Type(_, ty) => {
                quote_spanned!(ty.span()=> <#ty as #private::TaskReturn>::Output)
            }
        };
        let handler = self.task_handler();
        let members = self.members();
        let checks = types.iter().map(|ty| match self.options.use_cache {
            false => quote_spanned!(ty.span()=> #private::argument_to_store::<#ty>();),
            true => quote_spanned!(ty.span()=> #private::cached_argument::<#ty>();),
        });
        let submit_function = self.submit_function();
        let discovered = self.discovered(&format_ident!("task"), &format_ident!("Task"));
        let module = self.module(
            &format_ident!("Task"),
            quote_spanned! {ident.span()=>
                #[doc(inline)]
                #inner use super::#marker as task;
            },
        );
        quote! {
            #module
            #submit_function
            #(#cfgs)*
            const _: () = {
                #(#checks)*
                impl #private::Task for #ident::Task {
                    type Args = #args;
                    type Output = #output;
                    const NAME: &'static str = #name;
                    #members
                    fn handler() -> #private::Handler<Self> {
                        #handler
                    }
                }
                #discovered
            };
        }
    }

    fn callback(&self) -> TokenStream {
        let Expansion { private, name, cfgs, function, inner, marker, args, ctx, .. } = self;
        let ident = &function.sig.ident;
        let call = self.call(|_| unreachable!("a callback has no arguments"));
        let (constructor, body) = self.body("", &call);
        let handler = quote! {
            #private::CallbackHandler::#constructor(
                |#args: #private::TaskResult, #ctx: #private::TaskContext| { #body }
            )
        };
        let members = self.members();
        let discovered = self.discovered(&format_ident!("callback"), &format_ident!("Callback"));
        let doc = format!("Names the callback `{name}`, for `then`.");
        let look_outside = quote_spanned!(ident.span()=> use super::#marker as _;);
        let module = self.module(
            &format_ident!("Callback"),
            quote! {
                #look_outside
                #[doc = #doc]
                #[must_use]
                #inner fn callback() -> #private::CallbackRef {
                    #private::CallbackRef::new(#name)
                }
            },
        );
        quote! {
            #module
            #(#cfgs)*
            #[allow(non_upper_case_globals, reason = "generated")]
            const #marker: () = ();
            #(#cfgs)*
            const _: () = {
                impl #private::CallbackTask for #ident::Callback {
                    const NAME: &'static str = #name;
                    #members
                    fn handler() -> #private::CallbackHandler {
                        #handler
                    }
                }
                #discovered
            };
        }
    }

    /// The module of the function's name.
    fn module(&self, definition: &Ident, content: TokenStream) -> TokenStream {
        let Expansion { name, cfgs, function, inner, .. } = self;
        let (vis, ident) = (&function.vis, &function.sig.ident);
        let doc = format!("The definition `{name}`, beside the function [`{ident}()`].");
        let definition_doc = format!("The definition `{name}`.");
        quote! {
            #(#cfgs)*
            #[doc = #doc]
            #[allow(unused_imports, dead_code, unreachable_pub, reason = "generated")]
            #vis mod #ident {
                #[doc = #definition_doc]
                #[::core::prelude::v1::derive(Clone, Copy, Debug)]
                #inner struct #definition;
                #content
            }
        }
    }

    fn discovered(&self, constructor: &Ident, definition: &Ident) -> TokenStream {
        let Expansion { private, function, .. } = self;
        let ident = &function.sig.ident;
        quote! {
            #private::inventory::submit! {
                #private::Discovered::#constructor::<#ident::#definition>(
                    #private::module_path!(),
                    #private::file!(),
                    #private::line!(),
                )
            }
        }
    }

    /// The trait's `options` and `requires`, where they aren't the defaults.
    fn members(&self) -> TokenStream {
        let private = &self.private;
        let options = self.options.expression(private).map(|options| {
            quote! {
                fn options() -> #private::TaskOptions {
                    #options
                }
            }
        });
        let contexts: Vec<_> = self
            .parameters
            .iter()
            .filter_map(|parameter| match parameter {
                Parameter::Context { ty } => Some(quote_spanned! {ty.span()=>
                    requires.extend(<#ty as #private::FromContext>::requirement());
                }),
                _ => None,
            })
            .collect();
        let requires = (!contexts.is_empty()).then(|| {
            quote! {
                fn requires() -> #private::Vec<#private::Requirement> {
                    let mut requires = #private::Vec::new();
                    #(#contexts)*
                    requires
                }
            }
        });
        quote!(#options #requires)
    }

    fn task_handler(&self) -> TokenStream {
        let Expansion { private, args, ctx, .. } = self;
        let numbered = |at: usize| Ident::new(&format!("argument{at}"), Span::mixed_site());
        let names: Vec<_> = (0..self.arguments().count()).map(numbered).collect();
        let pattern = tuple(&names);
        let call = self.call(|at| numbered(at).into_token_stream());
        let (constructor, body) =
            self.body(if self.options.use_cache { "cached_" } else { "" }, &call);
        quote! {
            #private::Handler::#constructor(
                |#args: <Self as #private::Task>::Args, #ctx: #private::TaskContext| {
                    let #pattern = #args;
                    #body
                }
            )
        }
    }

    /// The handler's constructor, and the body of the closure that it takes.
    fn body(&self, prefix: &str, call: &TokenStream) -> (Ident, TokenStream) {
        let Expansion { private, ctx, .. } = self;
        match self.options.blocking {
            Some(_) => (
                format_ident!("{prefix}blocking"),
                quote! {
                    let _ = &#ctx;
                    let called = || -> #private::Result<_, #private::TaskError> {
                        #private::TaskReturn::into_result(#call)
                    };
                    called()
                },
            ),
            None => {
                (format_ident!("try_{prefix}future"), quote!(let _ = &#ctx; #private::Ok(#call)))
            }
        }
    }

    /// The call of the function, with what `argument` gives for the argument of each number.
    fn call(&self, argument: impl Fn(usize) -> TokenStream) -> TokenStream {
        let Expansion { private, function, args, ctx, .. } = self;
        let ident = &function.sig.ident;
        let mut count = 0;
        let parameters = self.parameters.iter().map(|parameter| match parameter {
            Parameter::Argument { .. } => {
                count += 1;
                argument(count - 1)
            }
            Parameter::Context { ty } => quote_spanned! {ty.span()=>
                <#ty as #private::FromContext>::from_context(&#ctx)?
            },
            Parameter::Parent => args.to_token_stream(),
        });
        quote!(#ident(#(#parameters),*))
    }

    /// What the module re-exports as `task`. It is outside of it, where the types are known.
    fn submit_function(&self) -> TokenStream {
        let Expansion { private, name, cfgs, function, marker, .. } = self;
        let (vis, ident) = (&function.vis, &function.sig.ident);
        let names: Vec<_> = self.arguments().map(|(name, ..)| name).collect();
        let parameters = self.arguments().map(|(name, ty, cached)| match cached {
            true => quote!(#name: impl #private::Into<#ty>),
            false => quote!(#name: #ty),
        });
        let body = if self.options.use_cache {
            let kept = self
                .arguments()
                .filter(|(.., cached)| *cached)
                .map(|(name, ty, _)| quote!(let #name = <#ty>::keep(#private::Into::into(#name));));
            let shared: Vec<_> = self
                .arguments()
                .map(|(name, ty, cached)| match cached {
                    true => quote!(#name.share()?),
                    false => quote_spanned! {ty.span()=>
                        #private::plain_argument_cloned_for_each_attempt::<#ty>(&#name)
                    },
                })
                .collect();
            let shared = tuple(&shared);
            quote! {
                #(#kept)*
                #private::submit_cached(
                    #private::CachedArguments::new(move || #private::Some(#shared)),
                )
            }
        } else {
            let args = tuple(&names);
            quote!(#private::submit_stored(#args))
        };
        let doc = format!("Submits the task `{name}` with these arguments.");
        quote! {
            #(#cfgs)*
            #[doc = #doc]
            #[doc(hidden)]
            #[must_use = "a submission does nothing until it is submitted"]
            #[allow(
                dead_code,
                unreachable_pub,
                clippy::needless_question_mark,
                clippy::too_many_arguments,
                reason = "generated"
            )]
            #vis fn #marker(#(#parameters),*) -> #private::Submission<#ident::Task> {
                #body
            }
        }
    }

    /// Name, type and whether it is `Cached`, of each argument.
    fn arguments(&self) -> impl Iterator<Item = (&Ident, &syn::Type, bool)> {
        self.parameters.iter().filter_map(|parameter| match parameter {
            Parameter::Argument { name, ty, cached } => Some((name, ty, *cached)),
            _ => None,
        })
    }
}

/// One bare, several as a tuple, none as `()`.
fn tuple<T: ToTokens>(elements: &[T]) -> TokenStream {
    match elements {
        [one] => one.to_token_stream(),
        elements => quote!((#(#elements),*)),
    }
}

/// What is as visible inside a module as `vis` is beside it.
fn inner_visibility(vis: &Visibility) -> Visibility {
    match vis {
        Visibility::Public(_) => vis.clone(),
        Visibility::Inherited => parse_quote!(pub(super)),
        Visibility::Restricted(restricted) => {
            let path = &restricted.path;
            if path.is_ident("self") {
                parse_quote!(pub(super))
            } else if path.segments.first().is_some_and(|first| first.ident == "super") {
                parse_quote!(pub(in super::#path))
            } else if path.segments.first().is_some_and(|first| first.ident == "self") {
                let rest = path.segments.iter().skip(1);
                parse_quote!(pub(in super #(::#rest)*))
            } else {
                vis.clone()
            }
        }
    }
}
