//! `agnes admin activity health` and `sync`: how an installation is doing.

use agnes_core::local::{GetPulse, PastSyncs};
use agnes_core::maintenance::Color;
use anstyle::AnsiColor;
use chrono::TimeDelta;

use crate::app::App;
use crate::failure::Outcome;
use crate::output::text::{bytes, count, duration, or_dash, safe, time};

pub(super) async fn health(app: &App) -> Outcome {
    let pulse = app.ask(GetPulse {}).await?;
    app.out.show(&pulse, |out| {
        let colored = |color: Color, text: &str| {
            let of = match color {
                Color::Green => AnsiColor::Green,
                Color::Yellow => AnsiColor::Yellow,
                Color::Red => AnsiColor::Red,
            };
            app.out.style(of.on_default(), text)
        };
        for field in &pulse.fields {
            let mark = colored(field.color, &format!("{:<6}", field.color.as_str()));
            writeln!(out, "{mark}  {}: {}", safe(&field.key), safe(&field.value))?;
        }
        Ok(writeln!(out, "{}", app.out.bold(&safe(&pulse.sentence)))?)
    })
}

pub(super) async fn syncs(app: &App, since: TimeDelta, limit: usize) -> Outcome {
    let past = app.ask(PastSyncs { since_minutes: since.num_minutes().max(1), limit }).await?;
    app.out.show(&past, |out| {
        let number = |n: Option<i64>, shown: fn(u64) -> String| {
            n.and_then(|n| u64::try_from(n).ok()).map_or_else(|| "-".to_owned(), shown)
        };
        let rows = past.iter().map(|one| {
            vec![
                time(Some(one.past.synced_at)),
                safe(&one.past.table_id),
                one.past.status.as_str().to_owned(),
                number(one.past.rows, count),
                number(one.size_bytes, bytes),
                number(one.past.duration_ms, duration),
                safe(&or_dash(one.past.error.as_deref())),
            ]
        });
        let header = ["ENDED", "TABLE", "STATUS", "ROWS", "SIZE", "TOOK", "ERROR"];
        app.out.grid(out, &header, &["ROWS", "SIZE", "TOOK"], rows.collect())
    })
}
