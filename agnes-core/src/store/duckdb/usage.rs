//! How much people scanned.

use ::duckdb::params;
use async_trait::async_trait;
use chrono::NaiveDate;

use super::Db;
use crate::error::Result;
use crate::scan::UsageRepository;

#[derive(Debug)]
pub(super) struct Usages(pub(super) Db);

#[async_trait]
impl UsageRepository for Usages {
    async fn of_day(&self, day: NaiveDate) -> Result<Vec<(String, u64)>> {
        self.0
            .read("read what was scanned", move |conn| {
                let sql = "SELECT user_id, bytes FROM scan_usage WHERE day = ?::DATE ORDER BY user_id";
                conn.prepare(sql)?.query_map([day.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .await
    }

    async fn add(&self, user_id: &str, day: NaiveDate, bytes: u64) -> Result<()> {
        let (user, day) = (user_id.to_owned(), day.to_string());
        self.0
            .write("count what was scanned", move |conn| {
                conn.execute("DELETE FROM scan_usage WHERE day < ?::DATE", [&day])?;
                conn.execute(
                    "INSERT INTO scan_usage (user_id, day, bytes) VALUES (?, ?::DATE, ?) ON CONFLICT (user_id, day) \
                     DO UPDATE SET bytes = CASE WHEN bytes > 18446744073709551615 - excluded.bytes \
                     THEN 18446744073709551615 ELSE bytes + excluded.bytes END",
                    params![user, day, bytes],
                )?;
                Ok::<_, super::Fail>(())
            })
            .await
    }
}
