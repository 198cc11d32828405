//! Small files that pages load: inside the binary, named by their content.

use std::borrow::Cow;
use std::sync::LazyLock;

use agnes_core::config::SiteConfig;
use axum::extract::State;
use axum::http::Response;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse as _;

use crate::extract::Path;
use crate::openapi::ProblemShape;
use crate::problem::Problem;
use crate::state::App;

/// A file, and its name with the hash of its content.
#[derive(Clone)]
struct Asset {
    name: String,
    kind: &'static str,
    bytes: Cow<'static, [u8]>,
}

impl Asset {
    fn new(stem: &str, extension: &str, kind: &'static str, bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        let bytes = bytes.into();
        Self { name: format!("{stem}.{}.{extension}", hash(&bytes)), kind, bytes }
    }

    fn path(&self) -> String {
        format!("/static/{}", self.name)
    }
}

/// 64 bits of a hash, in hex: names a file, proves nothing.
fn hash(bytes: &[u8]) -> String {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{fnv:016x}")
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("agnes", "css", "text/css; charset=utf-8", &include_bytes!("style.css")[..]));
static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("agnes", "js", "text/javascript; charset=utf-8", &include_bytes!("script.js")[..]));
static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", &include_bytes!("icon.svg")[..]));

/// The variables of the style sheet that fields of the theme set; the others have no place here.
const VARIABLES: [(&str, &str); 11] = [
    ("primary", "--accent"),
    ("primary_light", "--accent-soft"),
    ("text_primary", "--ink"),
    ("text_secondary", "--soft"),
    ("background", "--ground"),
    ("surface", "--surface"),
    ("border", "--line"),
    ("font_primary", "--sans"),
    ("radius", "--radius"),
    ("warning", "--warn"),
    ("error", "--bad"),
];

/// What the theme of this installation changes of the style sheet. Colours are for the light
/// page: nobody chose them for a dark one.
fn theme(site: &SiteConfig) -> Option<Asset> {
    let set = |colours: bool| {
        let mine = VARIABLES.iter().filter(|(field, _)| matches!(*field, "font_primary" | "radius") != colours);
        mine.filter_map(|(field, variable)| Some(format!("{variable}: {};", site.theme.get(*field)?)))
            .collect::<String>()
    };
    let (colours, rest) = (set(true), set(false));
    let sheet = format!(":root {{ {rest} }}\n@media (prefers-color-scheme: light) {{ :root {{ {colours} }} }}\n");
    let is_set = !(colours.is_empty() && rest.is_empty());
    is_set.then(|| Asset::new("theme", "css", "text/css; charset=utf-8", sheet.into_bytes()))
}

fn logo(site: &SiteConfig) -> Option<Asset> {
    let svg = site.logo_svg.clone()?;
    Some(Asset::new("logo", "svg", "image/svg+xml", svg.into_bytes()))
}

/// Address of the installation's own style sheet, where it has a theme.
pub(super) fn theme_of(site: &SiteConfig) -> Option<String> {
    theme(site).map(|asset| asset.path())
}

/// Address of the mark of the installation.
pub(super) fn mark_of(site: &SiteConfig) -> String {
    logo(site).map_or_else(icon, |asset| asset.path())
}

/// Address of the style sheet.
pub(super) fn style() -> String {
    STYLE.path()
}

/// Address of the script.
pub(super) fn script() -> String {
    SCRIPT.path()
}

/// Address of the icon.
pub(super) fn icon() -> String {
    ICON.path()
}

/// A file that pages load
///
/// Its name holds the hash of its content, so it never changes.
#[utoipa::path(get, path = "/static/{file}", tag = "pages", params(("file" = String, Path, description = "As a page names it")), responses(
    (status = 200, description = "The file", body = String, content_type = "text/css"),
    (status = 404, description = "There is none of this name", body = ProblemShape, content_type = "application/problem+json"),
))]
pub(crate) async fn static_file(
    State(app): State<App>,
    Path(file): Path<String>,
) -> Result<Response<axum::body::Body>, Problem> {
    let config = app.engine().live_config();
    let known = [&*STYLE, &*SCRIPT, &*ICON].into_iter().cloned();
    let known = known.chain(theme(&config.site)).chain(logo(&config.site));
    let asset = known.into_iter().find(|asset| asset.name == file).ok_or_else(Problem::not_found)?;
    // A picture that is opened by itself runs nothing, whoever made it.
    let headers = [
        (CONTENT_TYPE, asset.kind),
        (CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; sandbox"),
    ];
    Ok((headers, asset.bytes).into_response())
}

/// The icon
#[utoipa::path(get, path = "/favicon.ico", tag = "pages", responses(
    (status = 200, description = "The icon", body = String, content_type = "image/svg+xml"),
))]
pub(crate) async fn favicon() -> Response<axum::body::Body> {
    ([(CONTENT_TYPE, ICON.kind), (CACHE_CONTROL, "public, max-age=86400")], ICON.bytes.clone()).into_response()
}

/// What search engines may look at: nothing
#[utoipa::path(get, path = "/robots.txt", tag = "pages", responses(
    (status = 200, description = "Rules for robots", body = String, content_type = "text/plain"),
))]
pub(crate) async fn robots() -> &'static str {
    "User-agent: *\nDisallow: /\n"
}
