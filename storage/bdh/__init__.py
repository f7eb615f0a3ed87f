"""The BDH: history as Parquet files on Hadoop or in a local folder, read as SQL, as Arrow tables and as Ray Datasets."""
