//! What a function must look like to be a task or a callback.

use std::fmt::Display;

use quote::ToTokens;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Error, FnArg, Ident, ItemFn, Pat, PatIdent, PatType, ReturnType, Type, TypeImplTrait, TypePath,
    TypeReference,
};

use crate::options::{Kind, Mistakes, Options, is_valid_name};

/// How many arguments serde's tuples can carry.
const ARGUMENTS_MAX: usize = 16;

/// What a parameter is, and its type.
pub(crate) enum Parameter {
    /// An argument of the submission, kept or stored.
    Argument { name: Ident, ty: Type, cached: bool },
    /// `Data<T>` or `TaskContext`.
    Context { ty: Type },
    /// The `TaskResult` of a callback.
    Parent,
}

/// Reads the parameters of a function; what is wrong with it goes to `mistakes`.
pub(crate) fn read(
    kind: Kind,
    function: &ItemFn,
    options: &Options,
    mistakes: &mut Mistakes,
) -> Vec<Parameter> {
    check_qualifiers(kind, function, options, mistakes);
    check_name(kind, function, options, mistakes);
    let mut parameters = Vec::new();
    for input in &function.sig.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                let noun = kind.noun();
                mistakes.at(receiver, format_args!("a {noun} is a function, not a method"));
            }
            FnArg::Typed(typed) => match parameter(kind, typed, options) {
                Ok(parameter) => parameters.push(parameter),
                Err(mistake) => mistakes.add(mistake),
            },
        }
    }
    check_numbers(kind, function, &parameters, mistakes);
    parameters
}

fn check_qualifiers(kind: Kind, function: &ItemFn, options: &Options, mistakes: &mut Mistakes) {
    let (sig, noun) = (&function.sig, kind.noun());
    let mut refuse = |place: Option<&dyn ToTokens>, what: &dyn Display| {
        if let Some(place) = place {
            mistakes.at(&place.to_token_stream(), format_args!("a {noun} cannot be {what}"));
        }
    };
    refuse(sig.constness.as_ref().map(|token| token as _), &"`const`");
    refuse(sig.unsafety.as_ref().map(|token| token as _), &"`unsafe`");
    refuse(sig.abi.as_ref().map(|token| token as _), &"`extern`");
    refuse(sig.variadic.as_ref().map(|token| token as _), &"variadic");
    let generic = !sig.generics.params.is_empty();
    let generic = "generic: the queue finds it by its name, which says nothing of types"
        .get(..)
        .filter(|_| generic);
    if let Some(generic) = generic {
        refuse(Some(&sig.generics), &generic);
    }
    match (sig.asyncness, options.blocking) {
        (Some(asyncness), Some(_)) => mistakes.at(
            &asyncness,
            format_args!("a blocking {noun} is not `async`; leave out one of the two"),
        ),
        (None, None) => mistakes.at(
            &sig.fn_token,
            format_args!(
                "a {noun} is an `async fn`, or says that it blocks: `#[{noun}(blocking)]`"
            ),
        ),
        _ => {}
    }
    if let ReturnType::Type(_, ty) = &sig.output
        && let Type::ImplTrait(ty) = &**ty
    {
        let message = format_args!("a {noun} names its return type; make it an `async fn`");
        mistakes.at(ty, message);
    }
}

fn check_name(kind: Kind, function: &ItemFn, options: &Options, mistakes: &mut Mistakes) {
    let ident = &function.sig.ident;
    let name = ident.unraw().to_string();
    if options.name.is_none() && !is_valid_name(&name) {
        let noun = kind.noun();
        mistakes.at(
            ident,
            format_args!(
                "`{name}` is not a valid name; give another: `#[{noun}(name = \"…\")]`; names \
                 match ^[a-z0-9_][a-z0-9_.-]{{0,62}}$"
            ),
        );
    }
}

fn check_numbers(kind: Kind, function: &ItemFn, parameters: &[Parameter], mistakes: &mut Mistakes) {
    let arguments = parameters.iter().filter(|one| matches!(one, Parameter::Argument { .. }));
    if arguments.count() > ARGUMENTS_MAX {
        let message = "a task takes at most 16 arguments; put some into a struct";
        mistakes.at(&function.sig.inputs, message);
    }
    let parents = parameters.iter().filter(|one| matches!(one, Parameter::Parent)).count();
    if kind == Kind::Callback && parents != 1 {
        let message = "a callback takes exactly one `TaskResult`";
        mistakes.at(&function.sig.ident, message);
    }
}

fn parameter(kind: Kind, typed: &PatType, options: &Options) -> syn::Result<Parameter> {
    let ty = &*typed.ty;
    if let Some(cfg) = typed.attrs.iter().find(|attr| attr.path().is_ident("cfg")) {
        return Err(Error::new_spanned(cfg, "a parameter of a task cannot depend on a `cfg`"));
    }
    let owned = match ty {
        Type::Reference(reference) => &*reference.elem,
        other => other,
    };
    match last_segment(owned).as_deref() {
        Some(special @ ("Data" | "TaskContext" | "TaskResult" | "Cached"))
            if !std::ptr::eq(ty, owned) =>
        {
            let message = format!("`{special}` is taken by value; it is cheap to clone");
            Err(Error::new_spanned(ty, message))
        }
        Some("Data" | "TaskContext") => Ok(Parameter::Context { ty: ty.clone() }),
        Some("TaskResult") if kind == Kind::Callback => Ok(Parameter::Parent),
        _ if kind == Kind::Callback => {
            let message = "a callback takes one `TaskResult`, `Data<T>` and `TaskContext`, \
                           and no other arguments";
            Err(Error::new_spanned(ty, message))
        }
        Some("Cached") if !options.use_cache => {
            let message = "`Cached` needs the option `use_cache`: `#[task(use_cache)]`";
            Err(Error::new_spanned(ty, message))
        }
        last => {
            let cached = last == Some("Cached");
            let name = argument_name(&typed.pat)?;
            check_argument(ty, options)?;
            Ok(Parameter::Argument { name, ty: ty.clone(), cached })
        }
    }
}

fn argument_name(pat: &Pat) -> syn::Result<Ident> {
    match pat {
        Pat::Ident(PatIdent { ident, by_ref: None, subpat: None, .. }) => Ok(ident.clone()),
        other => {
            let message = "an argument of a task has a plain name; take it apart in the body";
            Err(Error::new(other.span(), message))
        }
    }
}

fn last_segment(ty: &Type) -> Option<String> {
    match ty {
        Type::Path(TypePath { qself: None, path }) => {
            path.segments.last().map(|segment| segment.ident.to_string())
        }
        Type::Group(group) => last_segment(&group.elem),
        Type::Paren(paren) => last_segment(&paren.elem),
        _ => None,
    }
}

/// Refuses types that no stored value can have.
fn check_argument(ty: &Type, options: &Options) -> syn::Result<()> {
    let mut search = Search { use_cache: options.use_cache, found: None };
    search.visit_type(ty);
    search.found.map_or(Ok(()), Err)
}

struct Search {
    use_cache: bool,
    found: Option<Error>,
}

impl<'ast> Visit<'ast> for Search {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        let is_static = reference.lifetime.as_ref().is_some_and(|one| one.ident == "static");
        if !(self.use_cache && is_static) {
            let instead = match &*reference.elem {
                Type::Path(path) if path.path.is_ident("str") => "; take a `String`",
                Type::Slice(_) => "; take a `Vec`",
                Type::Path(path) if path.path.is_ident("Path") => "; take a `PathBuf`",
                _ => "",
            };
            let message =
                format!("a task owns its arguments, it runs after its caller has gone on{instead}");
            self.found.get_or_insert_with(|| Error::new_spanned(reference, message));
        }
        visit::visit_type_reference(self, reference);
    }

    fn visit_type_impl_trait(&mut self, ty: &'ast TypeImplTrait) {
        let message = "an argument of a task has one type, not `impl Trait`";
        self.found.get_or_insert_with(|| Error::new_spanned(ty, message));
    }
}
