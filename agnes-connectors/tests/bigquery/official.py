"""The vendor's official client: the rows of a query as Arrow, written as Parquet."""

import sys

import grpc
import pyarrow.parquet
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery, bigquery_storage_v1
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

rest, rpc, project, sql, target = sys.argv[1:]
client = bigquery.Client(project, AnonymousCredentials(), client_options=ClientOptions(api_endpoint=rest))
channel = grpc.insecure_channel(rpc.split("//")[1], options=[("grpc.max_receive_message_length", -1)])
storage = bigquery_storage_v1.BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
rows = client.query(sql).result().to_arrow(bqstorage_client=storage)
pyarrow.parquet.write_table(rows, target)
