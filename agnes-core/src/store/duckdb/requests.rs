//! Access requests.

use ::duckdb::{Connection, OptionalExt, Row, params};
use async_trait::async_trait;
use chrono::DateTime;

use super::values::{stamp, stamp_opt, time};
use super::{Db, access, refuse};
use crate::error::Result;
use crate::ident::printable;
use crate::identity::{AccessRequest, AccessRequestRepository, Given, RequestError, RequestStatus, Review};
use crate::rbac::{AccessError, ResourceType, fold_resource_id};

pub(super) struct Requests(pub(super) Db);

const COLUMNS: &str = "id, user_id, resource_type, resource_id, reason, status, epoch_us(created_at), reviewed_by, \
                       epoch_us(reviewed_at), review_note, group_id";

/// A request, or `None` for a type or status that this build does not know.
fn request(row: &Row<'_>) -> ::duckdb::Result<Option<AccessRequest>> {
    let (kind, status): (String, String) = (row.get(2)?, row.get(5)?);
    let (Ok(resource_type), Some(status)) = (ResourceType::parse(&kind), RequestStatus::parse(&status)) else {
        return Ok(None);
    };
    Ok(Some(AccessRequest {
        id: row.get(0)?,
        user_id: row.get(1)?,
        resource_type,
        resource_id: row.get(3)?,
        reason: row.get(4)?,
        status,
        created_at: time(row.get(6)?).unwrap_or(DateTime::UNIX_EPOCH),
        reviewed_by: row.get(7)?,
        reviewed_at: time(row.get(8)?),
        review_note: row.get(9)?,
        group_id: row.get(10)?,
    }))
}

fn get(conn: &Connection, id: &str) -> ::duckdb::Result<Option<AccessRequest>> {
    let sql = format!("SELECT {COLUMNS} FROM access_requests WHERE id = ?");
    Ok(conn.query_row(&sql, [id], request).optional()?.flatten())
}

#[async_trait]
impl AccessRequestRepository for Requests {
    async fn insert(&self, request: &AccessRequest, limit: usize) -> Result<()> {
        let r = request.clone();
        self.0
            .write("keep an access request", move |conn| {
                let mut statement = conn.prepare(
                    "SELECT resource_type, resource_id FROM access_requests WHERE user_id = ? AND status = 'pending'",
                )?;
                let waiting: Vec<(String, String)> = statement
                    .query_map([&r.user_id], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<::duckdb::Result<_>>()?;
                let folded = fold_resource_id(r.resource_type, &r.resource_id);
                if waiting.iter().any(|(kind, id)| {
                    kind == r.resource_type.as_str() && fold_resource_id(r.resource_type, id) == folded
                }) {
                    return refuse(RequestError::AlreadyPending);
                }
                if waiting.len() >= limit {
                    return refuse(RequestError::TooManyPending { limit });
                }
                conn.execute(
                    "INSERT INTO access_requests (id, user_id, resource_type, resource_id, reason, status, created_at) \
                     VALUES (?, ?, ?, ?, ?, ?, ?::TIMESTAMP)",
                    params![
                        r.id,
                        r.user_id,
                        r.resource_type.as_str(),
                        r.resource_id,
                        r.reason,
                        r.status.as_str(),
                        stamp(r.created_at)
                    ],
                )?;
                Ok(())
            })
            .await
    }

    async fn get(&self, id: &str) -> Result<Option<AccessRequest>> {
        let id = id.to_owned();
        self.0.read("read an access request", move |conn| get(conn, &id)).await
    }

    async fn list(&self, user_id: Option<&str>, status: Option<RequestStatus>) -> Result<Vec<AccessRequest>> {
        let (user_id, status) = (user_id.map(str::to_owned), status.map(RequestStatus::as_str));
        self.0
            .read("list the access requests", move |conn| {
                let sql = format!(
                    "SELECT {COLUMNS} FROM access_requests WHERE (? IS NULL OR user_id = ?) AND (? IS NULL OR status = ?) \
                     ORDER BY created_at DESC, id"
                );
                let rows: Vec<Option<AccessRequest>> = conn
                    .prepare(&sql)?
                    .query_map(params![user_id, user_id, status, status], request)?
                    .collect::<::duckdb::Result<_>>()?;
                Ok(rows.into_iter().flatten().collect())
            })
            .await
    }

    async fn end(&self, id: &str, review: &Review) -> Result<(AccessRequest, Given)> {
        let (id, review) = (id.to_owned(), review.clone());
        self.0
            .write_access("decide an access request", move |conn| {
                let Some(found) = get(conn, &id)? else {
                    return refuse(RequestError::NotFound { request: printable(&id, 80) });
                };
                if found.status != RequestStatus::Pending {
                    return refuse(RequestError::NotPending { status: found.status });
                }
                let mut given = Given { membership_added: false, grant_added: false };
                let group_id = review.gives.as_ref().map(|(member, _)| member.group_id.clone());
                if let Some((member, grant)) = &review.gives {
                    let group = access::find_group(conn, &member.group_id)?;
                    let Some(group) = group else { return refuse(AccessError::GroupNotFound { group: member.group_id.clone() }) };
                    if group.is_from_directory() && !access::is_member(conn, member)? {
                        return refuse(AccessError::GoogleManaged { group: group.name });
                    }
                    given.membership_added = access::add_member(conn, member)?;
                    given.grant_added = match access::insert_grant(conn, grant) {
                        Ok(()) => true,
                        Err(super::Fail::Domain(error)) if error.code() == "grant_exists" => false,
                        Err(error) => return Err(error),
                    };
                }
                conn.execute(
                    "UPDATE access_requests SET status = ?, reviewed_by = ?, reviewed_at = ?::TIMESTAMP, review_note = ?, \
                     group_id = ? WHERE id = ?",
                    params![
                        review.status.as_str(),
                        review.by,
                        stamp_opt(Some(review.at)),
                        review.note,
                        group_id,
                        id
                    ],
                )?;
                match get(conn, &id)? {
                    Some(request) => Ok((request, given)),
                    None => refuse(RequestError::NotFound { request: printable(&id, 80) }),
                }
            })
            .await
    }
}
